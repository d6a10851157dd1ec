"""What carries out deploys and keeps instances as they should be. `mini_core/deploy.py` tells the story."""
