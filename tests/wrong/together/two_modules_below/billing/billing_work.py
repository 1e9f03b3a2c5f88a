def process(text):
    import rates

    return rates
