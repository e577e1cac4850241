-- leave (<incarnation> <consumer> <ticket>)*: ends subscriptions; what was fetched under a ticket goes to others.
local function verb()
  for place = 5, #ARGV, 3 do
    local consumer = tonumber(ARGV[place + 1])
    local group, topic = find_place(tonumber(ARGV[place]), consumer)
    local member = group and find_member(group, consumer)
    if member and not member.gone then
      if ARGV[place + 2] ~= '' then
        cancel(group, consumer, member, tonumber(ARGV[place + 2]))
      end
      leave(topic, group, consumer, member)
      serve(topic, group)
    end
  end
  return { 'ok' }
end
