"""What happens if a process is killed, a disk is full, a file lies or a server is gone? Each fault for real."""
