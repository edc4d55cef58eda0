"""Models and adapters: loading, stacking, memory, and the prompt that a group shares."""
