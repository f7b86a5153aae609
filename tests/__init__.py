"""Tests; a package, so that pytest puts the project's folder on the path whatever the working directory is."""
