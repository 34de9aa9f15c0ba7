"""How does one network teach itself: by sub-networks, its past, mixed images, or images like those it sees?"""
