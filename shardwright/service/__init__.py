"""What people look at: the web report."""
