"""Another domain: a head for images that come from elsewhere than those with labels, found without their labels."""
