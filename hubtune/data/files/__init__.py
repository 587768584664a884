"""Files that hold rows: where they lie, how they are compressed, and how their text is encoded."""
