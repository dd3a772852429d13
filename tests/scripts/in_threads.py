def in_threads(function, count=4):
    """Calls function(number) in so many threads, and raises what the first of them has raised."""
    failures = []

    def guarded(number):
        try:
            function(number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
