"""What everything else stands on: errors, files, flags, progress bars, random draws. Imports no other room."""
