"""What to label next: the photos, patches or areas from which a network would learn most."""
