"""LSVCR: which video a user watches next, and which comments of it they take up, from both histories."""
