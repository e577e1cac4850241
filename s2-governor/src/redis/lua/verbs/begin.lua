local verbs = {}

-- What a spend is, for whoever takes it for something else.
local function describe(spend)
  if spend.reserved == 1 then
    return { 'conflict', 'reservation', spend.amount, spend.session }
  end
  return { 'conflict', 'charge', (unpack_posted(spend)), spend.session }
end

-- How a reservation has ended, if it has.
local function how_ended(spend)
  return spend.state == RELEASED and 'released' or spend.state == SETTLED and 'settled' or spend.state ~= HELD and 'expired' or nil
end
