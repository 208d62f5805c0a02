"""Vehicle detection in lidar frames."""
