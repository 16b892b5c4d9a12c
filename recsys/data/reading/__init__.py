"""Reading what people have: files in, checked tables and refused rows out."""
