"""A scheme of our own, `labftp://host:port/path`: volumes, files and directories on an FTP server."""
