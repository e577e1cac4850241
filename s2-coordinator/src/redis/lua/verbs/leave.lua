-- leave (<incarnation> <consumer> <done>)*: ends subscriptions; what was fetched under later tickets goes to others.
local function verb()
  for place = 5, #ARGV, 3 do
    local consumer = tonumber(ARGV[place + 1])
    local group, topic = find_place(tonumber(ARGV[place]), consumer)
    local member = group and find_member(group, consumer)
    call('SREM', P .. 'pc:' .. CALLER, ARGV[place] .. ' ' .. ARGV[place + 1])
    if member and not member.gone then
      local done = tonumber(ARGV[place + 2])
      for nth = #member.answers, 1, -1 do
        local ticket = member.answers[nth][1]
        if ticket > done then
          cancel(group, consumer, member, ticket)
        end
      end
      leave(topic, group, consumer, member)
      serve(topic, group)
    end
  end
  return { 'ok' }
end
