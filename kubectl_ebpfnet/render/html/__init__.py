"""What every page of `-o html` is made of: escaped elements, the page around them, the picture."""
