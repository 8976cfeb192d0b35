"""`dvmsr serve`: a page and an HTTP interface that enlarge pictures (extra `serve`)."""
