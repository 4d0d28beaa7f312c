"""Many machines: how ranks find each other, who has a run's folder, and what is left when one is lost."""
