"""Where pictures lie: files here, and objects in stores."""
