//! Nothing is inherited from a real system: the simulation hands its listeners over by number.
