"""Node pods: deployed for a run, watched until they run, removed with it or afterwards."""
