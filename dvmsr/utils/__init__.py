"""What every room uses and what knows no room: files, signals, the terminal, sizes."""
