"""What tasks that give labels share, whatever they read."""
