"""The engines that a network is measured on, each in its best form of call. What is measured of them is `bench`."""
