RATE = "shipping"
