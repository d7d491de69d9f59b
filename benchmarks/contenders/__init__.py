"""What is measured side by side: each module is a process that trains when it is told to."""
