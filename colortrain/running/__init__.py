"""What a run does beside its steps: telling, saving, choosing, leaving in good order."""
