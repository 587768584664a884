"""Tasks that look at images: classes, boxes and masks."""
