"""What runs in a virtual machine: its first process, and the checks. It imports no test's code."""
