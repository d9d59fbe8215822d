"""Fine-tuning: which layers train, on what, at what rate, and how an interrupted run goes on."""
