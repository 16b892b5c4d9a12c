"""Read files into checked tables and refused rows."""
