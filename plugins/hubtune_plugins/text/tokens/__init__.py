"""Tags, words, windows and answers over tokens."""
