RATE = "billing"
