"""Pages for people in browsers. They hold no secrets, and load nothing from elsewhere."""
