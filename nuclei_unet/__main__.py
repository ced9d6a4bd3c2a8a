"""`python -m nuclei_unet` is the command `nuclei-unet`."""

from nuclei_unet.commands.main import main

if __name__ == "__main__":
    main()
