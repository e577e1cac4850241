-- take <incarnation> <consumer> <ticket> <done> <max> <wait>

-- What was handed out under a ticket before and is still in the hands of the member.
local function replay(topic, group, consumer, answer)
  local out = {}
  for place = 2, #answer, 2 do
    for position = answer[place], answer[place] + answer[place + 1] - 1 do
      local cell = find_cell(group, position)
      local event = cell and cell.state == IN_FLIGHT and cell.consumer == consumer and event_of(topic, cell)
      if event then
        out[#out + 1] = { cell.delivery, cell.attempts, cell.at, event[1], event[2] }
      end
    end
  end
  return out
end

local function verb()
  local incarnation, consumer = tonumber(ARGV[5]), tonumber(ARGV[6])
  local ticket, done, max, wait = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10] == '1'
  local group, topic = find_place(incarnation, consumer)
  if not group then
    return topic
  end
  local member = find_member(group, consumer)
  if not member or member.gone then
    return { 'lost' }
  elseif ticket <= member.done then
    return { 'superseded' }
  end
  local out
  for _, answer in ipairs(member.answers) do
    if answer[1] == ticket then
      out = replay(topic, group, consumer, answer)
      if #out == 0 then
        -- All of it has ended: whoever asks asked long ago.
        return { 'superseded' }
      end
    end
  end
  member.done, member.channel = at_least(member.done, done), CHANNEL
  out = out or hand_out(topic, group, consumer, member, max, ticket)
  if #out == 0 and not wait then
    member.done = ticket
  end
  if #out > 0 or not wait then
    stop_waiting(topic, group, consumer, member)
  else
    start_waiting(topic, group, consumer, member, ticket, max)
  end
  save_member(group, consumer, member)
  -- Whoever was woken for more than it could take passes the word on.
  serve(topic, group)
  return { 'ok', out }
end
