"""History that shops and researchers have, as events: readers of its formats, and two ways in."""
