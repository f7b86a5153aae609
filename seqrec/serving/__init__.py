"""Models outside the laboratory: export, answers, an HTTP service and its page."""
