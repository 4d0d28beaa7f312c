"""What training does to sound: rooms, noise, filters, stretch, mixtures, masks; drawn by position."""
