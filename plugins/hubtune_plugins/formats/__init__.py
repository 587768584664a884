"""Data formats that need packages of their own."""
