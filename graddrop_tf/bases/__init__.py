"""What a method is: combiners, weightings, and how they are composed."""
