"""Tasks that listen: classes of sound, and speech as text."""
