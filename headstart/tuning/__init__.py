"""Fine-tuning: which layers train, on which data, at which learning rate, and how an interrupted run resumes."""
