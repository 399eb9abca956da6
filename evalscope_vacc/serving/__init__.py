"""From a catalog entry to files on a disk (download) and to a running server (command, runner)."""
