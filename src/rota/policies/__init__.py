"""Who decides. One technique, one file, named as its paper names it; never an import from `rota.mechanisms`."""
