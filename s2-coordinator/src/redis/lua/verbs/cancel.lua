-- cancel <incarnation> <consumer> <ticket>: nobody waits under this ticket any more.
local function verb()
  local consumer = tonumber(ARGV[6])
  local group, topic = find_place(tonumber(ARGV[5]), consumer)
  local member = group and find_member(group, consumer)
  if member and not member.gone then
    cancel(topic, group, consumer, member, tonumber(ARGV[7]))
    serve(topic, group)
  end
  return { 'ok' }
end
