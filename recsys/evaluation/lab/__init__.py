"""The rank measures themselves, put to the test on made-up preferences whose truth is known."""
