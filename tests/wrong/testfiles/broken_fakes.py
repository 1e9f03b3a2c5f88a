raise RuntimeError("no fakes today")
