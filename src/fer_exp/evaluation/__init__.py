"""From a trained network and labelled images to figures that can be trusted, each with its uncertainty and origin."""
