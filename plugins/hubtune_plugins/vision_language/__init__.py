"""Tasks on images and texts together: answers about images by vision-language models."""
