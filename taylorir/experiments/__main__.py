"""``python -m taylorir.experiments``: run the trainings of a tier and measure them."""

from taylorir.experiments.run import main

if __name__ == "__main__":
    main()
